"""People's answers: what is asked, the record of answers, queues of rows that wait for them, import and export."""
