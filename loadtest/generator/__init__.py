"""What runs inside Locust's processes. Importing Locust patches the standard library for gevent, so nothing else imports it."""
