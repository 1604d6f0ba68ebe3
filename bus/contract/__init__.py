"""What services and agents say to each other: subjects, messages, questions and their answers."""
