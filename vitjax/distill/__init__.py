"""Distillation: a model learns from a trained one, its teacher.

Knowledge distillation: a good teacher is patient and consistent,
https://arxiv.org/abs/2106.05237: the teacher sees what the model sees, the
same crop mixed with the same partner. The model learns from its logits or from
its features. Its weights are a field of the train state that no step changes
and no checkpoint holds.
"""
