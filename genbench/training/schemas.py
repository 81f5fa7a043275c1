"""What the JSON files of a run must hold; `genbench.reading` checks it. A key that ends in ? may be missing."""

_DATA = {'name': str, 'shape': [int], 'levels': int, 'classes': int, 'fields?': [[str]], 'content?': str}
_BORROWED = {'run': str, 'config': dict, 'data?': _DATA, 'step': int, 'average': str, 'state_sha256': str}
_BORROWED |= {'borrowed?': {str: _BORROWED}, 'tokenizer_sha256?': str}  # what it borrowed; a text encoder's tokenizer
MANIFEST = {
    'data': _DATA, 'borrowed': {str: _BORROWED}, 'parameters': {str: int}, 'devices': [str], 'config_hash?': str,
    'notes?': {str: str},
}  # fmt: skip
SUMMARY = {
    'complete': bool, 'step': int, 'state_sha256': str, 'training_seconds': float, 'images_per_second': float,
    'goodput?': float, 'mfu?': (float, None), 'device?': str,
}  # fmt: skip
