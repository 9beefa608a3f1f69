/**
 * Names the headers that keep facts of a message in a record, and facts of a record in a message (see `properties.ts`).
 */

/** A header of a record with this prefix is a property of the message. */
export const PREFIX = 'amqp.'
/** This header of a record contains the types of headers that are not text. */
export const TYPES = `${PREFIX}types`
/** This header of a record names the exchange that the message was published to. */
export const EXCHANGE = `${PREFIX}exchange`
/** This header of a record contains the routing key of the default exchange, which is the name of a queue. */
export const ROUTING_KEY = `${PREFIX}routing-key`

/** This header of a message says that the record's value is null. */
export const NULL = 'manifold-null'
/** This header of a message contains the record's key, if it is not the routing key. */
export const KEY = 'manifold-key'
/** This header of a message contains its time in milliseconds, as RabbitMQ itself writes it. */
export const MILLISECONDS = 'timestamp_in_ms'
