def activate(): return None
