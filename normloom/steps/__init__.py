"""Steps: `@step`, and the stages of a flow that they make."""
