"""What services and agents send each other: subjects, messages, questions and their answers."""
