"""axe-core, which finds what people with disabilities cannot use on a page: fetched from npm by its locked hash."""
