"""Steps over what is known of people: facts from what they say, recommendations, who would take an offer."""
