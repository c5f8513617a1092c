"""What every route shares: keys, errors, headers, pages, forms, counters. Does not depend on any noun."""
