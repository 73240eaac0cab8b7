"""What runs inside the pods of a Kubernetes pool: step.sh in the user's images, the rest in the platform's."""
