/** Names of headers by which a record says what a message was, and a message what a record was (properties.ts). */

/** Headers of a record that begin so are properties of the message. */
export const PREFIX = 'amqp.'
/** The types of the headers that are not text. */
export const TYPES = `${PREFIX}types`
/** The exchange that the message was published to. */
export const EXCHANGE = `${PREFIX}exchange`
/** The routing key under the default exchange: the name of a queue. */
export const ROUTING_KEY = `${PREFIX}routing-key`

/** Header of a message: the record's value is null. */
export const NULL = 'manifold-null'
/** Header of a message: the record's key, which is not the routing key. */
export const KEY = 'manifold-key'
/** Header of a message: its time in milliseconds, as RabbitMQ itself writes it. */
export const MILLISECONDS = 'timestamp_in_ms'
