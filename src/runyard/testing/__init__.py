"""What authors of providers, and our own tests, need to prove a provider or the dispatcher."""
