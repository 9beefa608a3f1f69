import { opt } from '../../options/define'

export const options = {
  delay: opt.duration({
    doc: 'Delays each write by this long, to simulate a slow destination.',
    default: 0,
    defaultText: '0s',
    min: 0,
    roles: ['sink'],
  }),
}
