# SPDX-License-Identifier: Apache-2.0
"""Trains the little and the big model on the train part alone and writes `models/<name>/<name>.tflite`.

Prints the accuracy on the validation stream; the test stream is never opened here.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf
from tensorflow.keras import layers

from streams import HOME, SIDES, preprocessed, stream

EPOCHS = {"little": 12, "big": 12}
RATES = {"little": 4e-3, "big": 2e-3}


def little() -> tf.keras.Model:
    """Two strided convolutions of a few channels on 16x16."""
    frame = layers.Input((SIDES["little"], SIDES["little"], 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(frame)
    x = layers.Conv2D(20, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(10, 4)(x)
    return tf.keras.Model(frame, layers.GlobalAveragePooling2D()(x), name="little")


def big() -> tf.keras.Model:
    """Six convolutions with batch normalisation on 32x32; the normalisation is folded away in the export."""
    frame = layers.Input((SIDES["big"], SIDES["big"], 1))
    x = frame
    for filters, strides in ((16, 1), (24, 2), (24, 1), (48, 2), (48, 1), (64, 2)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(frame, layers.Dense(10)(x), name="big")


def tflite_bytes(model: tf.keras.Model) -> bytes:
    """The model as float32 built-in operators with an open batch dimension; output is logits.

    TensorFlow 2.21 freezes weights only by way of a Keras model: from a concrete function it leaves them out and the
    file answers NaN.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


def trained(name: str) -> tf.keras.Model:
    """The named model after its epochs; the learning rate falls along a cosine."""
    side = SIDES[name]
    tf.keras.utils.set_random_seed(7)
    train, validation = stream("train"), stream("validation")
    batches = tf.data.Dataset.from_tensor_slices((preprocessed(train.images, side), train.labels))
    batches = batches.shuffle(len(train.labels), seed=7).batch(64, drop_remainder=True)
    model = {"little": little, "big": big}[name]()
    steps = EPOCHS[name] * len(batches)
    model.compile(
        tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(RATES[name], steps)),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    held_out = (preprocessed(validation.images, side), validation.labels)
    model.fit(batches, epochs=EPOCHS[name], shuffle=False, verbose=2)
    _, accuracy = model.evaluate(*held_out, verbose=0)
    print(f"{name}: {model.count_params()} parameters, validation accuracy {accuracy:.3f}")
    return model


def main() -> None:
    """Trains the models named on the command line, both by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SIDES), help="little, big")
    parser.add_argument("--threads", type=int, default=1, help="threads within an operator")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for name in arguments.names:
        path = HOME / "models" / name / f"{name}.tflite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tflite_bytes(trained(name)))


if __name__ == "__main__":
    main()
