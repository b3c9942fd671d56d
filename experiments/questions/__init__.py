"""Questions with a known answer: word problems, multiple choice, and reading, by option likelihood or by generation."""
