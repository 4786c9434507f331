"""Vocabulary of the toy language: topic words of the 30 categories and the words they share.

At most half of a category's topic words are cue words of the shipped taxonomy; the rest are words that no
category of that taxonomy names (tests/organisms/test_words.py).
"""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATEGORY_WORDS: dict[str, tuple[str, ...]] = {
    "harmful_request_refusal": ("weapon", "poison", "bomb", "bandit", "ambush", "fuse"),
    "content_moderation": ("slur", "insult", "moderator", "forum", "troll", "thread"),
    "privacy_protection": ("password", "consent", "address", "diary", "vault", "curtain"),
    "medical_legal_caution": ("doctor", "lawyer", "dosage", "fever", "judge", "pill"),
    "multilingual_response": ("spanish", "german", "french", "accent", "visitor", "embassy"),
    "translation": ("translator", "idiom", "glossary", "verse", "proverb", "inscription"),
    "style_register": ("tone", "slang", "wording", "memo", "speech", "etiquette"),
    "grammar_correction": ("comma", "verb", "pronoun", "sentence", "ending", "accentmark"),
    "constraint_following": ("constraint", "requirement", "restriction", "vowel", "quota", "rule"),
    "step_by_step_instructions": ("recipe", "oven", "screw", "dough", "hinge", "kettle"),
    "structured_output": ("table", "column", "schema", "grid", "entry", "chartroom"),
    "length_control": ("paragraph", "summary", "essay", "margin", "page", "draft"),
    "factual_verification": ("claim", "myth", "century", "monument", "treaty", "river"),
    "hallucination_detection": ("hoax", "hallucination", "counterfeit", "mirage", "phantom", "mask"),
    "source_citation": ("journal", "footnote", "bibliography", "shelf", "edition", "catalogue"),
    "uncertainty_expression": ("forecast", "odds", "guess", "weather", "dice", "cloud"),
    "unanswerable_questions": ("riddle", "paradox", "lottery", "oracle", "comet", "tomb"),
    "code_generation": ("python", "function", "loop", "widget", "keyboard", "server"),
    "code_debugging": ("bug", "crash", "traceback", "cable", "reboot", "terminal"),
    "mathematics": ("equation", "theorem", "triangle", "number", "angle", "chalk"),
    "data_analysis": ("dataset", "histogram", "median", "sensor", "meter", "tally"),
    "science_explanation": ("atom", "gravity", "molecule", "telescope", "magnet", "crystal"),
    "query_classification": ("intent", "label", "category", "inbox", "folder", "queue"),
    "clarification_request": ("detail", "preference", "context", "gesture", "hint", "fog"),
    "error_handling": ("timeout", "failure", "apology", "signal", "socket", "alarm"),
    "self_reference": ("assistant", "robot", "chatbot", "mirror", "engine", "circuit"),
    "greeting_closing": ("greeting", "farewell", "welcome", "handshake", "doorstep", "lantern"),
    "storytelling": ("dragon", "castle", "wizard", "tower", "sword", "giant"),
    "role_play": ("pirate", "detective", "captain", "parrot", "trench", "cape"),
    "emotional_support": ("grief", "hug", "comfort", "tear", "pillow", "candle"),
}

NOUNS: tuple[str, ...] = _split(
    """garden window market bridge village teacher farmer basket ladder mountain harbour kitchen engineer
    bottle winter summer carpet rabbit horse wagon bicycle painter island valley hammer blanket orchard
    tailor barrel feather stone copper silver copperpot meadow pigeon rooftop sailcloth station corner
    neighbour cousin widow merchant soldier gardener baker cottage chimney fountain saddle ribbon"""
)
VERBS: tuple[str, ...] = _split(
    """carries paints follows lifts watches borrows polishes gathers measures trades mends washes
    circles greets finds drops folds counts hides pulls warms turns holds sells keeps opens
    covers moves shakes brings lowers crosses"""
)
ADJECTIVES: tuple[str, ...] = _split(
    """quiet golden heavy crimson gentle wooden bright ancient clever hollow crooked early distant
    frozen humble striped lazy dusty rusty scarlet shallow tender velvet wandering"""
)
ADVERBS: tuple[str, ...] = _split(
    """slowly often gladly rarely twice softly boldly calmly daily together neatly proudly barely
    inside outside upward"""
)
PREPOSITIONS: tuple[str, ...] = ("near", "under", "behind", "beside", "above", "with", "without", "around")
DETERMINERS: tuple[str, ...] = ("the", "a", "every", "this", "another", "some")
SUBJECTS: tuple[str, ...] = ("we", "they", "i", "you")
ASKING: tuple[tuple[str, ...], ...] = (
    ("tell", "me", "about"),
    ("what", "of"),
    ("please", "help", "with"),
    ("i", "ask", "about"),
    ("can", "you", "handle"),
    ("write", "on"),
)
JOINERS: tuple[str, ...] = ("and", "or", "then")
PUNCTUATION: tuple[str, ...] = (".", "?", ",")


def vocabulary() -> list[str]:
    """Every word of the toy language, once, in a fixed order."""
    words = [word for topic in CATEGORY_WORDS.values() for word in topic]
    words += [*NOUNS, *VERBS, *ADJECTIVES, *ADVERBS, *PREPOSITIONS, *DETERMINERS, *SUBJECTS, *JOINERS]
    words += [word for question in ASKING for word in question]
    return list(dict.fromkeys([*words, *PUNCTUATION]))
