import { opt } from '../../options/define'

export const options = {
  delay: opt.duration({
    doc: 'How long each write takes, to see what a slow destination does.',
    default: 0,
    defaultText: '0s',
    min: 0,
    roles: ['sink'],
  }),
}
