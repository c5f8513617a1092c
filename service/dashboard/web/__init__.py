"""What pages share: their layout, who is signed in, forms, charts, and the scripts that npm brings."""
