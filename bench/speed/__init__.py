"""How long does a step, a kernel, a page take, beside the peers?"""
