"""What container images are made of, as values: archives, layers, Dockerfiles, histories. Nothing here talks to a Docker."""
