"""What a sentence means for fusing: tasks, mixtures of them, attributes of the scene, or nothing.

>>> from fuseloop.instructions import understand
>>> match = understand("make the pedestrians easy to detect, it is night")
>>> match.intent, sorted(match.attributes)
('detection', ['night', 'people'])
>>> understand({"detection": 0.7, "view": 0.3}).mixture
{'detection': 0.7, 'view': 0.3}
>>> understand("bake a chocolate cake").understood
False
"""

from fuseloop.instructions.encoder import CachedEncoder, Instruction, InstructionEncoder, TaskIdEncoder, embed
from fuseloop.instructions.hashed import HashedEncoder
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS, LANGUAGES
from fuseloop.instructions.match import InstructionMatch, NotUnderstood, check_mixture
from fuseloop.instructions.understanding import shipped_encoder, understand
from fuseloop.instructions.weights import read_encoder, write_encoder

__all__ = [
    "ATTRIBUTES",
    "INTENTS",
    "LANGUAGES",
    "CachedEncoder",
    "HashedEncoder",
    "Instruction",
    "InstructionEncoder",
    "InstructionMatch",
    "NotUnderstood",
    "TaskIdEncoder",
    "check_mixture",
    "embed",
    "read_encoder",
    "shipped_encoder",
    "understand",
    "write_encoder",
]
