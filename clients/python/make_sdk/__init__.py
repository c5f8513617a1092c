"""Writes `luthier/generated` from openapi/openapi.json: `make sdk`. Nothing in that folder is edited by hand.

`document` turns schemas into types, `methods` turns operations into methods, `write` fills the templates. There is no
list of operations anywhere: what a document may say and this program cannot express ends it with a sentence.
"""
