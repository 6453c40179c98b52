"""What the system tests are built of: processes, the test app, Socket.IO clients in two languages."""
