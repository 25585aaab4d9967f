def comparison(chapter): return None
