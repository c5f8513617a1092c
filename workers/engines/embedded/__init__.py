"""The embedded engine: vLLM's dialect over transformers and PEFT, for machines without vLLM."""
