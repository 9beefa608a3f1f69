/** RabbitMQ for tests: a node of its own, or the one named in the environment. */
export {
  available,
  type RabbitmqOptions,
  type RabbitmqServer,
  type SecureRabbitmqServer,
  startRabbitmq,
} from '../../scripts/services/rabbitmq'
