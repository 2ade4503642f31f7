"""Sessions: values of variables, compiled programs, runs."""
