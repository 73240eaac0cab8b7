"""The one truth about jobs, attempts, queues, tenants, pools and tokens, behind one port with two databases."""
