"""The application: batches of tasks, from an uploaded archive to rewards."""
