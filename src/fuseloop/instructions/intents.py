"""What an instruction can ask for. The order of the names is that of the heads in weight files."""

from __future__ import annotations

INTENTS: dict[str, str] = {
    "detection": "objects are to be found by a detector",
    "segmentation": "every pixel is to be given a class",
    "saliency": "what catches the eye is to be told from the rest",
    "view": "a person looks at the image",
}
"""What the image can be for, by the names that mixtures have."""

ATTRIBUTES: dict[str, str] = {
    "night": "it is dark",
    "weather": "fog, rain, snow, smoke or dust is in the air",
    "small": "what matters is small or far away",
    "people": "people matter",
    "vehicles": "vehicles matter",
}
"""What an instruction can say of the scene beside its purpose."""

LANGUAGES = ("english", "german", "spanish", "chinese")
"""Languages that the shipped encoder was taught, by the names of their files in `words`."""
