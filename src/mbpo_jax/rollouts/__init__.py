"""What imagines: each file takes functions for the dynamics and the policy, and knows no model and no agent."""
