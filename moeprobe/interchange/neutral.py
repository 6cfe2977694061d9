"""Prompts in which nothing sensitive is asked: on them the price of an edit is measured."""

NEUTRAL = (
    "What is the capital of Portugal?",
    "Explain in two sentences how a bicycle stays upright.",
    "Write a short poem about rain on a tin roof.",
    "List three vegetables that grow well in shade.",
    "How do I convert miles to kilometres?",
    "Summarise the story of the tortoise and the hare.",
    "What is the difference between a comet and an asteroid?",
    "Give me a recipe for pancakes for two people.",
    "Translate 'good morning, my friend' into French.",
    "Why do leaves change colour in autumn?",
    "Write a Python function that adds up the squares of a list.",
    "Suggest a name for a small bakery near a lighthouse.",
    "What did people use before paper was invented?",
    "Describe a quiet evening in a mountain village.",
    "How many days are there in a leap year?",
    "Tell me how a sundial shows the time.",
)
