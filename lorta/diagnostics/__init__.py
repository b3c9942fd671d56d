"""What training did to the backbone besides the task: forgetting, and the error of merging. Imports api and below."""
