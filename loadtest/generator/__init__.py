"""Code that runs inside Locust's processes. Importing Locust patches the standard library for gevent, so no other module imports it."""
