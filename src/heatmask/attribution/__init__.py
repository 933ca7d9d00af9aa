"""The explained-classifier call and the methods that offer it."""
