"""The initial weights of DCGAN (Radford et al. 2016, section 4): everything starts from a normal of deviation 0.02."""
from paddle.nn.initializer import Normal

conv_initializer = Normal(mean=0.0, std=0.02)  # convolutions, transposed convolutions, fully connected layers
bn_initializer = Normal(mean=1.0, std=0.02)  # the scale of batch normalisation; its shift starts at 0
