"""Arrays that a test keeps beside it."""

# The member of a file that says where it comes from. All others are called name:dtype, so that no
# name is taken for this one, or for an argument of np.savez.
MARK = "gradtwin baseline 1"
