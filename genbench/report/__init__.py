"""The page of a study: one offline file."""
