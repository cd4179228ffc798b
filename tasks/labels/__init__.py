"""Steps about people's answers: the answers as a table, queues, rows with their answers, agreement."""
