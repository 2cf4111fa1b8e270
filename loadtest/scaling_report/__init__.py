"""The scaling report: measures the same work on 1, 2, 3 ... engines and shows what each further engine adds."""
