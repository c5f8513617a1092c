"""One public function = one use = one transaction. No Redis, S3 or HTTP inside a transaction."""
