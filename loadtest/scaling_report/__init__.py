"""The scaling proof: the same work on 1, 2, 3 ... engines, and a page that says what each engine brought."""
