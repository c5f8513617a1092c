"""What every route shares: keys, errors, headers, pages, forms, streams, the OpenAPI document. Knows no noun."""
