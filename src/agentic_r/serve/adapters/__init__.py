"""Our retrievers inside other frameworks: one small class each, none imported before it is used."""
