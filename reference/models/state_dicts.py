"""The `state_dict` of a torch.nn.Module as the parameters of a model, and back."""

from ..adapters import array, tensor


def from_state_dict(state):
    """{name: array} of the tensors of a state_dict, as torch.load gives it back. What is one tensor
    under several names, like a tied head, is one parameter, under the first of them."""
    return {name: array(a) for name, a in state.items() if _first(state, a) == name}


def to_state_dict(parameters, state):
    """A state_dict like `state`, with these parameters: what is one tensor there under several
    names has all of them here. Raises ValueError for other names, shapes or dtypes."""
    expected = from_state_dict(state)
    if parameters.keys() != expected.keys():
        raise ValueError(f"parameters: expected {[*expected]}, got {[*parameters]}")
    for name, a in expected.items():
        given = parameters[name]
        if (given.shape, given.dtype) != (a.shape, a.dtype):
            raise ValueError(
                f"parameters.{name}: expected shape {a.shape} and dtype {a.dtype}, got "
                f"{given.shape} and {given.dtype}"
            )
    made = {name: tensor(a) for name, a in parameters.items()}
    return {name: made[_first(state, a)] for name, a in state.items()}


def _first(state, a):
    """The first name under which the memory of a tensor stands."""
    return next(name for name, other in state.items() if _place(other) == _place(a))


def _place(a):
    return a.data_ptr(), a.shape, a.stride(), a.dtype
