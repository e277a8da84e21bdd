"""The fixed sentences of the samples, worded as RULER words them."""

NOISE_SENTENCES = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
PREFACE_ONE = (
    "A special magic {t} is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {t} afterwards.\n"
)
PREFACE_MANY = (
    "Some special magic {t}s are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {t}s afterwards.\n"
)
NEEDLE = " One of the special magic {t}s for {k} is: {v}."
QUESTION_ONE = (
    "\nWhat is the special magic {t} for {q} mentioned in the provided text? "
    "The special magic {t} for {q} mentioned in the provided text is"
)
QUESTION_MANY = (
    "\nWhat are all the special magic {t}s for {q} mentioned in the provided text? "
    "The special magic {t}s for {q} mentioned in the provided text are"
)
PREFACE_CHAINS = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
)
QUESTION_CHAINS = (
    "\nQuestion: Find all variables that are assigned the value {q} in the text above. "
    "Answer: According to the chain(s) of variable assignment in the text above, "
    "{n} variables are assigned the value {q}, they are:"
)
PREFACE_CODED = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. "
)
QUESTION_CODED = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
    "What are the three most frequently appeared words in the above coded text? "
    "Answer: According to the coded text above, the three most frequently appeared words are:"
)
ALL_PROMPTS = (
    PREFACE_MANY,
    PREFACE_ONE,
    QUESTION_ONE,
    QUESTION_MANY,
    NEEDLE,
    PREFACE_CHAINS,
    QUESTION_CHAINS,
    PREFACE_CODED,
    QUESTION_CODED,
)
