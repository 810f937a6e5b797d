"""Kafka: the source, the feedback of applications, what goes back. Imported only on demand."""
