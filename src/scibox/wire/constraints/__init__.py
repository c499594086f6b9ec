"""What holds an answer to a form: schemas, patterns, choices, grammars; bounded and compiled for a trial."""
