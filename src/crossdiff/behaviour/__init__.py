"""What models say: prompts per category, rules that judge answers, rates."""
