"""What a method and a task must offer, and every method that is a PEFT tuner. Imports training and what is below it."""
